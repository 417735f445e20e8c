import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";

export interface ReceivedSpan {
  readonly service: string;
  readonly instance: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly start: bigint;
  readonly end: bigint;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly status: { readonly code: number; readonly message?: string };
}

interface WireAttribute {
  key: string;
  value: Record<string, unknown>;
}

interface WireSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: WireAttribute[];
  status: ReceivedSpan["status"];
}

interface Message {
  resourceSpans: { resource: { attributes: WireAttribute[] }; scopeSpans: { spans: WireSpan[] }[] }[];
}

/** An OTLP receiver over real HTTP, which takes what it is sent, or answers with `status` and takes nothing. */
export async function startCollector() {
  const spans: ReceivedSpan[] = [];
  const collector = { status: 200, messages: 0 };
  const server = createServer(async (request, response) => {
    const message = (await json(request)) as Message;
    collector.messages += 1;
    if (request.url !== "/v1/traces" || request.headers["content-type"] !== "application/json") {
      response.writeHead(404).end();
      return;
    }
    if (collector.status === 200) spans.push(...message.resourceSpans.flatMap(read));
    response.writeHead(collector.status, { "content-type": "application/json" }).end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: spans as readonly ReceivedSpan[],
    /** Messages so far, also those that were not taken. */
    messages: () => collector.messages,
    answerWith(status: number) {
      collector.status = status;
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function read({ resource, scopeSpans }: Message["resourceSpans"][number]): ReceivedSpan[] {
  const of = values(resource.attributes);
  return scopeSpans
    .flatMap(({ spans }) => spans)
    .map(({ startTimeUnixNano, endTimeUnixNano, attributes, ...span }) => ({
      ...span,
      service: String(of["service.name"]),
      instance: String(of["service.instance.id"]),
      start: BigInt(startTimeUnixNano),
      end: BigInt(endTimeUnixNano),
      attributes: values(attributes),
    }));
}

function values(attributes: readonly WireAttribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}
