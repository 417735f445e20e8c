import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What a {@link RemoteStandIn} does with a request for an answer. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

/**
 * A small server of the Open Inference Protocol and of TensorFlow Serving's REST, for what a real one seldom does. Its
 * model `double` makes of `x` FP32 `[n, 2]` twice as much, `y`; a behaviour replaces its answers.
 */
export class RemoteStandIn {
  readonly #server: Server;
  ready = true;
  behaviour: Behaviour | undefined;
  /** Requests for answers, in the order they came. */
  readonly asked: {
    readonly headers: IncomingMessage["headers"];
    readonly url: string;
    readonly body: Buffer;
  }[] = [];
  /** Connections that were made. */
  connections = 0;
  /** Requests for answers whose client went away before. */
  abandoned = 0;

  constructor() {
    this.#server = createServer((request, response) => void this.#handle(request, response));
    this.#server.on("connection", () => this.connections++);
  }

  /** @param port 0: any free one @returns its address */
  async start(port = 0): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const url = request.url ?? "";
    if (request.method === "GET") {
      this.#tell(url, response);
      return;
    }
    this.asked.push({ headers: request.headers, url, body });
    response.on("close", () => {
      if (!response.writableFinished) this.abandoned++;
    });
    if (this.behaviour) this.behaviour(request, response, body);
    else if (url.includes("/v1/"))
      sendJson(response, 200, { outputs: doubled(JSON.parse(String(body)).inputs.x) });
    else answerOpenInference(request, response, body);
  }

  #tell(url: string, response: ServerResponse): void {
    const status = this.ready ? 200 : 503;
    if (url.endsWith("/ready")) sendJson(response, status, {});
    else if (url.endsWith("/metadata")) sendJson(response, 200, SAVED_MODEL);
    else if (url.startsWith("/v1/")) {
      const state = this.ready ? "AVAILABLE" : "LOADING";
      sendJson(response, 200, { model_version_status: [{ version: "1", state }] });
    } else {
      const x = { name: "x", datatype: "FP32", shape: [-1, 2] };
      sendJson(response, 200, { name: "double", inputs: [x], outputs: [{ ...x, name: "y" }] });
    }
  }
}

const DIMS = { dtype: "DT_FLOAT", tensor_shape: { dim: [{ size: "-1" }, { size: "2" }] } };
const SAVED_MODEL = {
  metadata: {
    signature_def: { signature_def: { serving_default: { inputs: { x: DIMS }, outputs: { y: DIMS } } } },
  },
};

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

function doubled(values: readonly (readonly number[])[]): number[][] {
  return values.map((row) => row.map((value) => 2 * value));
}

function answerOpenInference({ headers }: IncomingMessage, response: ServerResponse, body: Buffer): void {
  const length = Number(headers["inference-header-content-length"] ?? body.length);
  const { inputs } = JSON.parse(body.toString("utf8", 0, length)) as {
    inputs: [{ shape: number[]; data?: number[] }];
  };
  const [{ shape, data }] = inputs;
  const values = data ?? Array.from(new Float32Array(new Uint8Array(body.subarray(length)).buffer));
  const results = Float32Array.from(values, (value) => 2 * value);
  const output = { name: "y", datatype: "FP32", shape };
  if (data) {
    sendJson(response, 200, { model_name: "double", outputs: [{ ...output, data: [...results] }] });
    return;
  }
  const bytes = Buffer.from(results.buffer);
  const json = JSON.stringify({ outputs: [{ ...output, parameters: { binary_data_size: bytes.length } }] });
  response.writeHead(200, { "inference-header-content-length": String(Buffer.byteLength(json)) });
  response.end(Buffer.concat([Buffer.from(json), bytes]));
}
