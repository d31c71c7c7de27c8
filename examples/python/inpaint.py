"""Fills the white part of a mask: python inpaint.py MODEL PHOTO MASK OUTPUT."""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) != 5:
    sys.exit(__doc__)
model, photo, mask, output = sys.argv[1:]
onnxruntime.set_default_logger_severity(3)  # 3 = errors
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
upright = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
image = np.asarray(upright)[None]  # (1, H, W, 3) uint8
hole = np.asarray(Image.open(mask).convert("L"))[None]  # (1, H, W) uint8, above 127 = fill this
(inpainted,) = session.run(["inpainted"], {"image": image, "mask": hole})
Image.fromarray(inpainted[0]).save(output)
