// Fills the white part of a mask: node inpaint.mjs MODEL PHOTO MASK OUTPUT.
import sharp from "sharp";

process.env.ORT_DISABLE_TELEMETRY = "1"; // read when onnxruntime-node is loaded
const { InferenceSession, Tensor } = await import("onnxruntime-node");

/** Reads a picture as rows of `channels` bytes a pixel: 3 = RGB, 1 = grey. */
async function read(file, channels) {
  const pixels = sharp(file).toColourspace(channels === 3 ? "srgb" : "b-w").removeAlpha().raw();
  const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

async function main(model, photo, mask, output) {
  if (output === undefined) throw new Error("usage: node inpaint.mjs MODEL PHOTO MASK OUTPUT");
  const image = await read(photo, 3);
  const hole = await read(mask, 1); // above 127 = fill this
  const { width, height } = image;
  if (hole.width !== width || hole.height !== height) {
    throw new Error(
      `${mask}: the mask must be ${width} x ${height} like the photo, ` +
        `is ${hole.width} x ${hole.height}`,
    );
  }
  const session = await InferenceSession.create(model);
  const { inpainted } = await session.run({
    image: new Tensor("uint8", image.data, [1, height, width, 3]),
    mask: new Tensor("uint8", hole.data, [1, height, width]),
  });
  await sharp(inpainted.data, { raw: { width, height, channels: 3 } }).toFile(output);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(`inpaint.mjs: error: ${error.message}`);
  process.exitCode = 1;
});
