import { dimsOf, floatsOf } from "./build.ts";
import type { GraphProto, NodeProto, TensorProto } from "./proto.ts";

/** Who makes and who uses which tensor of a graph, as it was when this was made. */
export class GraphIndex {
  readonly graph: GraphProto;
  readonly #constants: ReadonlyMap<string, TensorProto>;
  readonly #producers = new Map<string, NodeProto>();
  readonly #consumers = new Map<string, NodeProto[]>();
  readonly #outputs: ReadonlySet<string>;

  constructor(graph: GraphProto) {
    this.graph = graph;
    this.#constants = new Map(graph.initializer.map((tensor) => [tensor.name ?? "", tensor]));
    this.#outputs = new Set(graph.output.map(({ name }) => name));
    for (const node of graph.node) {
      for (const name of node.output) this.#producers.set(name, node);
      for (const name of new Set(node.input)) {
        const known = this.#consumers.get(name);
        if (known) known.push(node);
        else this.#consumers.set(name, [node]);
      }
    }
  }

  constant(name: string | undefined): TensorProto | undefined {
    return this.#constants.get(name ?? "");
  }

  /** A float constant of one number. */
  scalar(name: string | undefined): number | undefined {
    const tensor = this.constant(name);
    if (!tensor || dimsOf(tensor).some((length) => length !== 1)) return undefined;
    return floatsOf(tensor)?.[0];
  }

  producer(name: string | undefined): NodeProto | undefined {
    return this.#producers.get(name ?? "");
  }

  consumers(name: string | undefined): readonly NodeProto[] {
    return this.#consumers.get(name ?? "") ?? [];
  }

  /** Whether the graph itself gives it. */
  isOutput(name: string | undefined): boolean {
    return this.#outputs.has(name ?? "");
  }

  /** The one node that uses it, if there is one and the graph does not give it as well. */
  soleConsumer(name: string | undefined): NodeProto | undefined {
    const consumers = this.consumers(name);
    return consumers.length === 1 && !this.isOutput(name) ? consumers[0] : undefined;
  }
}
