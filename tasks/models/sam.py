"""The Segment Anything Model (Kirillov et al. 2023, arXiv 2304.02643) turns a box into a mask: `grade.sam`."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import SamModel, SamProcessor

from tasks.data.records import Box


class Segmenter:
    """`source` is a hub id or a local folder with a SamModel and its processor; safetensors only. On the GPU where
    there is one.
    """

    def __init__(self, source: str):
        self._processor = SamProcessor.from_pretrained(source)
        model = SamModel.from_pretrained(source, use_safetensors=True)
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @torch.no_grad()
    def mask(self, picture: Path, box: Box) -> np.ndarray:
        """(height, width) bool, in pixels of the picture, of the object in a box in thousandths. SAM's one mask, not
        the best of its three: a box leaves no doubt what is meant.
        """
        with Image.open(picture) as file:
            image = file.convert("RGB")
        corners = [v * side / 1000 for v, side in zip(box, image.size * 2, strict=True)]
        given = self._processor(images=image, input_boxes=[[corners]], return_tensors="pt")
        output = self._model(
            pixel_values=given["pixel_values"].to(self._model.device),
            input_boxes=given["input_boxes"].to(self._model.device, torch.float32),
            multimask_output=False,
        )
        sizes = given["original_sizes"], given["reshaped_input_sizes"]
        return self._processor.post_process_masks(output.pred_masks.cpu(), *sizes)[0][0, 0].numpy()
