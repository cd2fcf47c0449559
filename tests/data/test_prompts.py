from dhdiff_ray.data.prompts import defect_words, prompt, vocabulary


def test_prompt_names_category_and_defect_in_words():
    assert prompt("metal_nut", "bent_lead") == "a photo of a metal nut with bent lead"
    assert prompt("metal_nut", "good") == "a photo of a metal nut without defect"


def test_defect_words_stand_in_the_prompt():
    assert defect_words("broken_large") in prompt("bottle", "broken_large")
    assert defect_words("good") in prompt("bottle", "good")


def test_vocabulary_has_every_word_of_every_prompt_once():
    words = vocabulary([("mesh", "bent"), ("mesh", "broken")])
    assert words == sorted({"a", "photo", "of", "mesh", "with", "without", "defect", "bent", "broken"})
