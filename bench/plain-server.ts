import "../lib/engines/no-telemetry.ts";
import { resolve } from "node:path";
import fastify from "fastify";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

/**
 * The server that anyone would write first: Fastify, sharp, and ONNX Runtime on the main thread, with both answers from
 * one run. No limits, no batches, no deadlines. What a serving framework costs, or gains, is what it does beside this.
 *
 *     node bench/plain-server.ts <model.onnx>
 */
const [file = ""] = process.argv.slice(2);
const SIDE = 144;
const LABELS = ["cat", "dog", "other"];

const session = await InferenceSession.create(resolve(file));
const [inputName = ""] = session.inputNames;
const [outputName = ""] = session.outputNames;
const server = fastify({ bodyLimit: 10 * 2 ** 20 });
server.addContentTypeParser("image/jpeg", { parseAs: "buffer" }, (_request, body, done) => done(null, body));

server.post("/api/classify", async (request) => {
  const { models = "" } = request.query as { readonly models?: string };
  const pixels = await sharp(request.body as Buffer)
    .rotate()
    .resize(SIDE, SIDE, { fit: "cover", kernel: "linear" })
    .flatten({ background: "#fff" })
    .raw()
    .toBuffer();
  const outputs = await session.run({ [inputName]: new Tensor("uint8", pixels, [1, SIDE, SIDE, 3]) });
  const logits = outputs[outputName]?.data as Float32Array;
  const exps = Array.from(logits, (logit) => Math.exp(logit));
  const sum = exps.reduce((total, exp) => total + exp, 0);
  const labels = LABELS.map((label, i) => ({ label, probability: (exps[i] ?? 0) / sum }));
  const results = models.split(",").map((model) => {
    const probability = labels.find(({ label }) => model.endsWith(label))?.probability ?? 0;
    return [model, { answer: probability >= 0.5, probability, labels }];
  });
  return { results: Object.fromEntries(results) };
});

await server.listen({ port: 0, host: "127.0.0.1" });
const address = server.server.address();
process.send?.(typeof address === "object" && address ? address.port : 0);
// However the bench ends.
process.once("disconnect", () => process.exit());
