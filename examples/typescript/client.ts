// Fills the hole of a photograph by a server: node build/client.js SERVER PHOTOGRAPH MASK OUTPUT
import { readFile, writeFile } from "node:fs/promises";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [server, photograph, mask, output] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: server });
const encoded = (file: string) => readFile(file, "base64");

const { data, error } = await client.POST("/v1/inpaint/json", {
  body: { image: await encoded(photograph), mask: await encoded(mask), fill: "auto" },
});
if (error) {
  console.error(`${error.error.code}: ${error.error.message}`);
  process.exit(1);
}
await writeFile(output, Buffer.from(data.image, "base64"));
console.log(`${data.width} x ${data.height} pixels, filled by ${data.model}`);
