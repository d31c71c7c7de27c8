/** The optional input `seed` of a model. ONNX Runtime for JavaScript sets no optional inputs. */

// A protobuf TensorProto of type int64: the name, and after it the eight bytes of the value.
const NAME = [0x42, 4, ...new TextEncoder().encode("seed"), 0x4a, 8];

/** Where the default of the input lies in a model's bytes; -1 if the model has no such input. */
export function placeOfSeed(bytes) {
  for (let at = bytes.indexOf(NAME[0]); at >= 0; at = bytes.indexOf(NAME[0], at + 1)) {
    if (NAME.every((byte, index) => bytes[at + index] === byte)) return at + NAME.length;
  }
  return -1;
}

/** Writes another default into a model's bytes. */
export function setSeed(bytes, seed) {
  const place = placeOfSeed(bytes);
  if (place < 0) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset + place, 8);
  view.setBigInt64(0, BigInt(seed), true);
}
