"""Fills the white part of a mask: python inpaint.py MODEL PHOTO MASK OUTPUT."""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) != 5:
    sys.exit(__doc__)
model, photo, mask, output = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
image = np.asarray(Image.open(photo).convert("RGB"))[None]  # (1, H, W, 3) uint8
hole = np.asarray(Image.open(mask).convert("L"))[None]  # (1, H, W) uint8, above 127 = fill this
(inpainted,) = session.run(["inpainted"], {"image": image, "mask": hole})
Image.fromarray(inpainted[0]).save(output)
