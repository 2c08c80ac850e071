"""Cut an image into square patches and project each to a token.

Shape letters: B batch, C channels, H height, W width, N patches, E embedding.
"""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Turn an image into a row of patch tokens.

    Args:
        patch_size: side of a patch in pixels.
        in_channels: channels of the image.
        embed_dim: width of a token.
    """

    def __init__(self, *, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Give the number of patches along each side.

        Args:
            height: image height in pixels.
            width: image width in pixels.

        Returns:
            Patches along the height and along the width.

        Raises:
            ValueError: a side is not a positive multiple of the patch size.
        """
        if min(height, width) < self.patch_size or height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image size must be a positive multiple of patch_size {self.patch_size}, "
                f"got {height} × {width}."
            )
        return height // self.patch_size, width // self.patch_size

    def forward(self, x: Tensor) -> Tensor:
        """Embed an image.

        Args:
            x: image, ``(B, C, H, W)``.

        Returns:
            Patch tokens, row by row, ``(B, N, E)``.

        Raises:
            ValueError: the image is not four-dimensional, has another number of channels, or a side that the
                patch size does not divide.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must have shape (B, {self.in_channels}, H, W), got {tuple(x.shape)}.")
        self.grid_size(x.shape[2], x.shape[3])
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, N, E)
