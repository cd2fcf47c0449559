"""A Gaussian model of a product's surface, noise with its texture, and how a defect differs from it (ours).

PriorGrad (Lee et al. 2022, arXiv:2106.06406) diffuses towards N(mu, Sigma), which follows from the condition, instead
of towards N(0, 1). Here the condition is the product around a raw mask, and N(mu, Sigma) what a stationary Gaussian
texture with the second moments of good products' latents would be inside it: inpainting as of Galerne and Leclaire
2017, "Texture Inpainting Using Efficient Gaussian Conditional Simulation". Of a good surface noised with such noise the
best linear prediction of the velocity is 0: to begin with, a network that answers 0 draws a surface without seams, and
what it has to learn is the defect.

How a defect is expected to look on that surface, given its mask, is fitted as well. Beside the paper's third stage,
which merges the domains after each block, this merges them once more at the end: a linear filter from an annotation's
latents to how much an image's differ from good product there, fitted to the real defects in closed form (ridge
regression). Masks are decided early in the reverse process, and how dark a crack under them is follows from their
latents to a good part; a network is slow to learn that from a few hundredths of its error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dhdiff_ray.model.domains import join, split

NUGGET = 0.05
"""Variance that is added where latents are known, as a share of theirs, so that the system can be solved."""
FLOOR = 1e-3
"""Least power at any frequency."""
TAPER = 4
"""Side of the torus over the standard deviation of the Gaussian that moments of distant positions are faded by."""
SOLVED = 1e-4
"""Share of the squared error at the start that counts as none: 0.006 of the texture's deviation inside a region."""
ITERATIONS = 100
"""Of conjugate gradients at most."""
LOOK_SIDE = 3
"""Of the filter from masks to images, in latent positions."""
RIDGE = 0.05
"""Share of the mean power of what is regressed on."""


class GaussianTexture(nn.Module):
    """Stationary on a torus half as large again as the latents; without texture (white) until :meth:`fit`."""

    root: Tensor

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        one = torch.eye(channels, dtype=torch.complex64).expand(side, side // 2 + 1, -1, -1)
        self.register_buffer("root", torch.view_as_real(one).clone())  # of the spectrum: (p, p / 2 + 1, c, c, 2)

    def white_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(c, p, p): the white noise that :meth:`draw` wants for each latent.

        Raises:
            ValueError: latents of this size do not fit on the torus.
        """
        if max(size) > self.side * 2 // 3:
            raise ValueError(
                f"latents of {size[0]} x {size[1]} positions are larger than the {self.side * 2 // 3} whose texture "
                "this model knows; draw pairs of the size it was trained on"
            )
        return (self.root.shape[2], self.side, self.side)

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Take the second moments of good products' latents (n, c, h, w), clean, about each one's own mean."""
        latents = latents - latents.mean((2, 3), keepdim=True)
        wide = 2 * max(latents.shape[-2:])  # large enough that opposite edges are not neighbours
        spectrum = torch.fft.rfft2(latents.double(), s=(wide, wide))
        power = torch.einsum("nihw,njhw->ijhw", spectrum, spectrum.conj()) / len(latents)
        whole = torch.fft.rfft2(torch.ones(latents.shape[-2:]).to(latents).double(), s=(wide, wide))
        pairs = torch.fft.irfft2(whole.abs() ** 2, s=(wide, wide)).round().clamp(min=1)  # so many were summed
        moments = torch.fft.irfft2(power, s=(wide, wide)) / pairs  # (c, c, 2 h, 2 h), by offset
        offset = torch.cat([torch.arange(self.side - self.side // 2), torch.arange(-(self.side // 2), 0)])
        fade = torch.exp(-((offset / (self.side / TAPER)) ** 2) / 2).to(moments)
        moments = moments[..., offset % wide, :][..., offset % wide] * fade[:, None] * fade
        power = torch.fft.rfft2(moments).permute(2, 3, 0, 1)  # (p, p / 2 + 1, c, c)
        values, vectors = torch.linalg.eigh((power + power.mH) / 2)
        root = vectors * values.clamp(min=FLOOR).sqrt()[..., None, :] @ vectors.mH
        self.root.copy_(torch.view_as_real(root))

    @torch.no_grad()
    def mean(self, latents: Tensor, region: Tensor) -> Tensor:
        """mu: the expected surface, given what is around the region; zero for annotations.

        Args:
            latents: (2b, c, h, w), joined, clean outside the region.
            region: (2b, 1, h, w), 1 where nothing is known.

        Returns:
            (2b, c, h, w); outside the region about the latents themselves.
        """
        image, centre, known = _centred(latents, region)
        return _as_means(self._expected(image, known) + centre)

    @torch.no_grad()
    def draw(self, noise: Tensor, white: Tensor, region: Tensor) -> Tensor:
        """N(0, Sigma) for images, and annotations' noise as it is.

        Args:
            noise: white noise (2b, c, h, w), joined.
            white: white noise on the torus (b, c, p, p), see :meth:`white_shape`.
            region: (2b, 1, h, w), 1 where nothing is known; there noise is textured, outside nearly zero.
        """
        free = self._free(white, region)
        textured = free - self._expected(free, 1 - split(region)[0])
        return join(textured.to(noise), split(noise)[1])

    @torch.no_grad()
    def draw_and_mean(self, noise: Tensor, white: Tensor, latents: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`draw` and :meth:`mean` give, from one solution: a GPU waits for kernels, not for their work."""
        free = self._free(white, region)
        image, centre, known = _centred(latents, region)
        of_free, of_image = self._expected(torch.cat([free, image]), torch.cat([known, known])).chunk(2)
        return join((free - of_free).to(noise), split(noise)[1]), _as_means(of_image + centre)

    def _free(self, white: Tensor, region: Tensor) -> Tensor:
        """The texture itself, of which nothing is known yet (b, c, h, w)."""
        return _through(torch.view_as_complex(self.root.float()), white)[..., : region.shape[-2], : region.shape[-1]]

    def _expected(self, latents: Tensor, known: Tensor) -> Tensor:
        """E(z | z where known), zero-mean z: preconditioned conjugate gradients in the known positions."""
        root = torch.view_as_complex(self.root.float())
        spectrum = root @ root
        nugget = NUGGET * spectrum.diagonal(dim1=-2, dim2=-1).real.mean()
        rough = torch.linalg.inv(spectrum + nugget * torch.eye(root.shape[-1]).to(root))
        size = (self.side, self.side)
        wide = lambda x: functional.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]))  # noqa: E731
        known = wide(known.float())
        solved = torch.zeros_like(left := known * wide(latents.float()))
        near = known * _through(rough, left)
        towards, fit = near, _dot(left, near)
        enough = SOLVED * fit
        for _ in range(ITERATIONS):
            if not bool((fit > enough).any()):
                break
            change = known * _through(spectrum, towards) + nugget * towards
            step = torch.where(fit > enough, fit / _dot(towards, change), 0)
            solved, left = solved + step * towards, left - step * change
            near = known * _through(rough, left)
            before, fit = fit, _dot(left, near)
            towards = near + torch.where(before > enough, fit / before, 0) * towards
        answer = _through(spectrum, solved)[..., : latents.shape[-2], : latents.shape[-1]]
        return answer.to(latents)


class DefectLook(nn.Module):
    """Answers nothing until :meth:`fit`."""

    empty: Tensor
    weight: Tensor

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.register_buffer("empty", torch.zeros(channels, size, size))  # the latents of a mask without a defect
        self.register_buffer("weight", torch.zeros(channels, channels, LOOK_SIDE, LOOK_SIDE))

    @torch.no_grad()
    def fit(self, change: Tensor, annotations: Tensor, defects: Tensor, empty: Tensor) -> None:
        """Regress on real defects, each of which counts alike, however large it is.

        Args:
            change: latents of images less those of the good product that is expected there, (n, c, h, w).
            annotations: latents of their masks, (n, c, h, w).
            defects: (n, 1, h, w) of 0 and 1, where the defects are; positions beside them are looked at as well.
            empty: the latents of a mask without a defect, (c, h, w).
        """
        self.empty.copy_(empty)
        near = functional.max_pool2d(defects, 3, 1, 1)[:, 0].bool()  # (n, h, w)
        seen = functional.unfold((annotations - empty).double(), LOOK_SIDE, padding=LOOK_SIDE // 2)  # (n, 9 c, h w)
        side, channels = seen.shape[1], change.shape[1]
        power, shared = seen.new_zeros((side, side)), seen.new_zeros((side, channels))
        for one, is_near, answer in zip(seen, near.flatten(1), change.double().flatten(2), strict=True):
            if is_near.any():
                given = one[:, is_near] / is_near.sum().sqrt()  # (9 c, positions)
                power += given @ given.T
                shared += given @ (answer[:, is_near] / is_near.sum().sqrt()).T  # (9 c, c)
        ridge = RIDGE * power.diagonal().mean().clamp(min=1e-8) * torch.eye(side).to(power)
        self.weight.copy_(torch.linalg.solve(power + ridge, shared).T.reshape(self.weight.shape))

    def forward(self, velocity: Tensor, noised: Tensor, region: Tensor, alpha: Tensor) -> Tensor:
        """The predicted velocity, of images with the expected look of the defect whose mask is predicted.

        With textured noise and x0 ~ N(look, Sigma) the expected velocity is -sigma look; a blurred mask's look is the
        expectation over the masks it may become, since the filter is linear. No gradient reaches the annotation.

        Args:
            velocity: (2b, c, h, w), joined.
            noised: what it was predicted from, annotations relative to nothing, (2b, c, h, w).
            region: (2b, 1, h, w), 1 where both are noised.
            alpha: the schedule's cumulative product at the timestep, (2b,) or a number.
        """
        image, annotation = split(velocity)
        alpha = split(alpha.expand(len(velocity)).to(velocity))[1][:, None, None, None]
        inside = split(region)[1]
        clean = alpha.sqrt() * split(noised)[1] - (1 - alpha).sqrt() * annotation.detach()  # (b, c, h, w)
        empty = self.empty if self.empty.shape == clean.shape[1:] else self.empty.mean((1, 2), keepdim=True)
        look = functional.conv2d((clean - empty) * inside, self.weight.to(clean), padding=LOOK_SIDE // 2)
        return join(image - (1 - alpha).sqrt() * look * inside, annotation)


def _through(filters: Tensor, x: Tensor) -> Tensor:
    """Each frequency of (b, c, p, p) times its own matrix (p, p / 2 + 1, c, c)."""
    spectrum = torch.fft.rfft2(x.float())  # (b, c, p, p / 2 + 1)
    rows = spectrum.flatten(2).permute(2, 0, 1).contiguous()  # (frequencies, b, c): as columns it takes twice as long
    mixed = rows @ filters.flatten(0, 1).mT
    return torch.fft.irfft2(mixed.permute(1, 2, 0).reshape(spectrum.shape), s=x.shape[-2:])


def _centred(latents: Tensor, region: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The image's latents about their mean where they are known, that mean, and where that is."""
    image, known = split(latents)[0], 1 - split(region)[0]
    centre = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    return image - centre, centre, known


def _as_means(image: Tensor) -> Tensor:
    return join(image, torch.zeros_like(image))


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((1, 2, 3), keepdim=True)
