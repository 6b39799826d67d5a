"""Pixels of a photograph, segmented by a mixture of their colors and places."""

from __future__ import annotations

import base64
from typing import Any

import torch
import traitlets
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from gmmbook import lab
from gmmbook.widgets.base import Interactive
from gmmedu import plot
from gmmedu.models import MODELS, GaussianMixture

#: As in the front end.
_FAMILIES, _SURE = ("isotropic", "full"), 0.9
_COUNTS, _POSITIONS = (2, 6), (0.0, 0.5, 1.0, 1.5, 2.0)


class SegmentationExplorer(Interactive):
    """Slide the number of components and the weight of position, and see what is one segment.

    A photograph of 42 rows of 64 pixels. Each pixel is a point: red, green and blue from 0 to 1,
    and, where position has a weight, column and row in widths of the picture, times the weight. A
    pixel belongs to the segment of the component with the largest responsibility (eq-responsibilities),
    and is in doubt where that is below 0.9. The mixtures are the lowest of many starts, fitted
    beforehand (the study "segmentation" of ``lab``).

    num_components: K, 2 to 6; position: the weight, 0, 0.5, 1, 1.5 or 2; family: "isotropic", or
    "full", whose segments are the same at all weights above 0; pixel: the one that is ringed, its
    column, 0 to 63, and row, 0 to 41.

    Fixed traits: picture, with width, height and the levels of red, green and blue, a byte each, in
    base 64; table, the fits by family, weight and K, each with weights, means and factors. values,
    by torch, of each segment: weights, colors (the component's mean), pixels, and pieces (of pixels
    that share a side); doubt, the number of pixels in doubt; and of the ringed pixel its
    responsibilities.

    Raises ``traitlets.TraitError`` for a state that there is not.
    """

    picture = traitlets.Dict(read_only=True).tag(sync=True)
    table = traitlets.Dict(read_only=True).tag(sync=True)
    num_components = traitlets.Int(min=_COUNTS[0], max=_COUNTS[1]).tag(sync=True)
    position = traitlets.CFloat().tag(sync=True)
    family = traitlets.Enum(_FAMILIES).tag(sync=True)
    pixel: traitlets.List[Any] = traitlets.List(traitlets.Int()).tag(sync=True)
    state = ("num_components", "position", "family", "pixel")

    def __init__(
        self,
        num_components: int = 3,
        *,
        position: float = 0.0,
        family: str = "isotropic",
        pixel: tuple[int, int] = (6, 8),
        name: str = "segmentation",
    ) -> None:
        levels = (255 * lab.picture()).round().byte()
        self._height, self._width, _ = levels.shape
        code = base64.b64encode(bytes(levels.flatten().tolist())).decode()
        picture = {"width": self._width, "height": self._height, "levels": code}
        self.set_trait("picture", picture)
        self.set_trait("table", _table())
        super().__init__(
            kind="segmentation",
            name=name,
            label="Segments of a photograph, by color and position",
            num_components=num_components,
            position=position,
            family=family,
            pixel=list(pixel),
        )

    @traitlets.validate("position")
    def _weight(self, proposal: Any) -> Any:
        if proposal["value"] not in _POSITIONS:
            raise traitlets.TraitError(
                f"position must be one of {_POSITIONS}, got {proposal['value']!r}"
            )
        return proposal["value"]

    @traitlets.validate("pixel")
    def _place(self, proposal: Any) -> Any:
        pixel, sizes = proposal["value"], (self._width, self._height)
        if len(pixel) != 2 or not all(0 <= v < size for v, size in zip(pixel, sizes, strict=True)):
            raise traitlets.TraitError(
                f"pixel must be a column, 0 to 63, and a row, 0 to 41, got {pixel!r}"
            )
        return pixel

    def points(self) -> Tensor:
        """The pixels, row by row, (2688, 3 or 5), float64."""
        return lab.pixels(self.position)

    def model(self) -> GaussianMixture:
        """The fit as it stands, float64."""
        # Full covariances are those of weight 1, in other units.
        unit = self.position if self.family == "full" else 1.0
        stored = self.table[self.family][_index(self.family, self.position)]
        fit = {
            part: torch.tensor(numbers, dtype=torch.float64)
            for part, numbers in stored[self.num_components - _COUNTS[0]].items()
        }
        count, dims = fit["means"].shape
        scale = torch.ones(dims, dtype=torch.float64)
        scale[3:] = unit
        factors = torch.zeros(count, dims, dims, dtype=torch.float64)
        if self.family == "isotropic":
            factors.diagonal(dim1=1, dim2=2)[:] = fit["factors"]
        else:
            rows, columns = torch.tril_indices(dims, dims)
            factors[:, rows, columns] = fit["factors"]
        factors *= scale[:, None]
        # Given means, so that torch's own random numbers are not used up.
        means = fit["means"] * scale
        model = MODELS[self.family](count, dims, init_means=means, dtype=torch.float64)
        weights = fit["weights"] / fit["weights"].sum()
        return model.set_parameters(weights, covariances=factors @ factors.mT)

    @torch.no_grad()
    def responsibilities(self) -> Tensor:
        """Of each pixel, row by row, (2688, K), float64."""
        return self.model().responsibilities(self.points())

    def segments(self) -> Tensor:
        """The component of each pixel, from 0, (42, 64)."""
        return self.responsibilities().argmax(1).reshape(self._height, self._width)

    def compute(self) -> dict[str, Any]:
        r, model = self.responsibilities(), self.model()
        own = r.argmax(1).reshape(self._height, self._width)
        column, row = self.pixel
        return {
            "weights": model.weights.tolist(),
            "colors": model.means[:, :3].tolist(),
            "pixels": own.flatten().bincount(minlength=self.num_components).tolist(),
            "pieces": _pieces(own.tolist(), self.num_components),
            "doubt": int((r.amax(1) < _SURE).sum()),
            "responsibilities": r[row * self._width + column].tolist(),
        }

    def _answer(self) -> None:
        super()._answer()
        pieces = ", ".join(map(str, self.values["pieces"]))
        self.alt = (
            "Above: a photograph of 64 by 42 pixels, a pagoda and trees before the sky and a lake. "
            f"Below: its {self.num_components} segments by {self.family} components with a weight "
            f"of position of {self.position:g}; from the darkest to the brightest they fall into "
            f"{pieces} pieces. {self.values['doubt']} pixels, darkened, are in doubt."
        )

    def draw(self, figure: Figure) -> None:
        figure.set_size_inches(6.4, 8.4)
        top, bottom = figure.subplots(2, 1)
        palette = torch.tensor([to_rgb(color) for color in plot.PALETTE])
        doubt = (self.responsibilities().amax(1) < _SURE).reshape(self._height, self._width, 1)
        painted = palette[self.segments()] * torch.where(doubt, 0.5, 1.0)
        for ax, levels in ((top, lab.picture()), (bottom, painted)):
            ax.imshow(levels.numpy(), interpolation="nearest")
            ax.plot(*self.pixel, "o", color="black", markerfacecolor="none", markersize=9)
            ax.set_axis_off()


def _index(family: str, position: float) -> int:
    """Where the fits of a weight are stored."""
    return _POSITIONS.index(position) if family == "isotropic" else int(position > 0)


def _table() -> dict[str, list[list[dict[str, Any]]]]:
    """The stored fits by family, weight and number of components."""
    table: dict[str, list[list[dict[str, Any]]]] = {"isotropic": [[] for _ in _POSITIONS]}
    table["full"] = [[], []]
    for record in lab.study("segmentation"):
        fits = table[record["family"]][_index(record["family"], record["position"])]
        fits.append({part: record[part] for part in ("weights", "means", "factors")})
    return table


def _pieces(segments: list[list[int]], count: int) -> list[int]:
    """Of each segment the number of pieces, whose pixels share sides."""
    left = {(i, j): k for i, row in enumerate(segments) for j, k in enumerate(row)}
    pieces = [0] * count
    while left:
        pixel, own = left.popitem()
        pieces[own] += 1
        border = [pixel]
        while border:
            i, j = border.pop()
            for near in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if left.get(near) == own:
                    del left[near]
                    border.append(near)
    return pieces
