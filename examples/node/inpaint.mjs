// Fills the white part of a mask: node inpaint.mjs MODEL PHOTO MASK OUTPUT.
import sharp from "sharp";

import { fill } from "./full_size.mjs";

process.env.ORT_DISABLE_TELEMETRY = "1"; // read when onnxruntime-node is loaded
const { InferenceSession, Tensor } = await import("onnxruntime-node");

/** Reads a picture, upright, as rows of `channels` bytes a pixel: 3 = RGB, 1 = gray. */
async function read(file, channels) {
  const upright = sharp(file).autoOrient();
  const pixels = upright.toColourspace(channels === 3 ? "srgb" : "b-w").removeAlpha().raw();
  const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

async function main(model, photo, mask, output) {
  if (output === undefined) throw new Error("usage: node inpaint.mjs MODEL PHOTO MASK OUTPUT");
  const image = await read(photo, 3);
  const hole = await read(mask, 1);
  const { width, height } = image;
  if (hole.width !== width || hole.height !== height) {
    throw new Error(
      `${mask}: the mask must be ${width} x ${height} like the photo, ` +
        `got ${hole.width} x ${hole.height}`,
    );
  }
  const session = await InferenceSession.create(model, { logSeverityLevel: 3 }); // errors
  const names = session.outputNames.filter((name) => name !== "predicted");
  const run = async (window, windowMask, rows, columns) => {
    const feeds = {
      image: new Tensor("uint8", window, [1, rows, columns, 3]),
      mask: new Tensor("uint8", windowMask, [1, rows, columns]),
    };
    const { inpainted, source } = await session.run(feeds, names);
    return { inpainted: inpainted.data, source: source?.data };
  };
  const missing = hole.data.map((value) => (value > 127 ? 1 : 0));
  await fill(run, image.data, missing, width, height);
  await sharp(image.data, { raw: { width, height, channels: 3 } }).toFile(output);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(`inpaint.mjs: error: ${error.message}`);
  process.exitCode = 1;
});
