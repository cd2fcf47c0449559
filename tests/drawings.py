"""What a hand might draw on a picture."""


def random_drawing(rng, width, height, whole=False):
    """Up to three points and three boxes inside a picture, in whole pixels or with fractions."""
    number = (lambda low, high: rng.randint(int(low), int(high))) if whole else rng.uniform
    points = [(number(0, width - 1), number(0, height - 1)) for _ in range(rng.randint(0, 3))]
    boxes = []
    for _ in range(rng.randint(0 if points else 1, 3)):
        left, top = number(0, width - 2), number(0, height - 2)
        boxes.append((left, top, number(left + 1, width), number(top + 1, height)))
    return points, boxes
