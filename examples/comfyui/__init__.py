"""ComfyUI node: fills the marked part of an image. Copy this folder into `custom_nodes/`."""

import numpy as np
import torch

import musical_tf

FILLS = ("auto", "copy", "network")


class MusicalInpaint:
    """Takes an image and a mask, returns the image with the mask's part filled."""

    CATEGORY = "inpaint"
    FUNCTION = "inpaint"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802, the name that ComfyUI looks for
        """The node's sockets and widgets."""
        models = (musical_tf.list_models(), {"default": "photo"})
        required = {"image": ("IMAGE",), "mask": ("MASK",), "model": models, "fill": (FILLS,)}
        return {"required": required}

    def inpaint(self, image, mask, model, fill):
        """Fills a batch.

        Args:
            image: Tensor `(B, H, W, 3 or 4)`, 0 to 1.
            mask: Tensor `(B or 1, H, W)` or `(H, W)`; above 0.5 = to be filled.
            model: A name from `musical_tf.list_models`.
            fill: One of `FILLS`.

        Returns:
            `(B, H, W, 3 or 4)`; values outside the mask are those of `image`, bit for bit.
        """
        values = image.cpu().numpy()
        marked = mask.cpu().numpy().reshape(-1, *mask.shape[-2:]) > 0.5
        if not marked.any():  # also ComfyUI's mask of an image without transparency, 64 x 64
            return (image,)
        if marked.shape[1:] != values.shape[1:3] or len(marked) not in (1, len(values)):
            raise ValueError(
                f"mask must be 1 or {len(values)} times {values.shape[2]} x {values.shape[1]} like "
                f"the image, got {len(marked)} times {marked.shape[2]} x {marked.shape[1]}"
            )
        result = values.copy()
        for index, picture in enumerate(values):
            hole = marked[min(index, len(marked) - 1)]
            levels = np.rint(np.clip(picture[..., :3], 0, 1) * 255).astype(np.uint8)
            filled = musical_tf.inpaint(levels, hole, model=model, fill=fill)
            result[index, ..., :3][hole] = filled[hole].astype(np.float32) / 255
        return (torch.from_numpy(result),)


NODE_CLASS_MAPPINGS = {"MusicalInpaint": MusicalInpaint}
NODE_DISPLAY_NAME_MAPPINGS = {"MusicalInpaint": "Inpaint (musical)"}
