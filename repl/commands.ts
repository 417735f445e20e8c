import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { inspect } from "node:util";
import type { BrokerOptions, ServiceBroker } from "moleculer";
import { ASK, call } from "../lib/actions.ts";
import { type AdminMeta, OPS, type Op } from "../lib/models/admin.ts";
import { catalogOf, describeModel } from "../lib/models/catalog.ts";
import type { Classification } from "../lib/tasks/classification.ts";
import type { AskParams, Provenance } from "../lib/types.ts";
import { AmqpTransporter } from "../transporters/amqp.ts";
import { listDeadLetters, purgeDeadLetters } from "../transporters/dead-letters.ts";

type ReplCustomCommand = NonNullable<NonNullable<BrokerOptions["replOptions"]>["customCommands"]>[number];

/** A command as moleculer-repl runs it: `params` is what `parse` made of the words after its name. */
interface Words {
  readonly words: readonly string[];
}

/** Puts all words into `params.words`: the default parser drops all but the first of a variadic argument. */
function parse(command: { readonly args: readonly string[]; params?: Words }): void {
  command.params = { words: [...command.args] };
}

function command(
  signature: string,
  description: string,
  action: (broker: ServiceBroker, words: readonly string[]) => Promise<void> | void,
): ReplCustomCommand {
  return {
    command: signature,
    description,
    parse,
    action: async (broker, params) => {
      try {
        await action(broker, (params as unknown as Words).words);
      } catch (error) {
        console.error((error as Error).message);
      }
    },
  };
}

/** Words after a command as parameters of an operation: `stable`, `2` and `share=0.1`. */
function paramsOf(names: readonly string[], words: readonly string[]): object {
  const named = words
    .filter((word) => word.includes("="))
    .map((word) => word.split("=", 2) as [string, string]);
  const plain = words.filter((word) => !word.includes("="));
  const given = [...plain.map((word, i) => [names[i] ?? `argument ${i + 1}`, word] as const), ...named];
  return Object.fromEntries(given.map(([name, word]) => [name, valued(word)]));
}

function valued(word: string): unknown {
  if (word === "null" || word === "none") return null;
  return /^-?\d+(\.\d+)?$/.test(word) ? Number(word) : word;
}

/** An operation of `lib/models/admin.ts` under the name of a command. */
function operation(op: Op, signature: string, names: readonly string[]): ReplCustomCommand {
  return command(signature, capitalised(OPS[op].about), async (broker, words) => {
    const meta: AdminMeta = { by: `REPL of ${userInfo().username} on ${broker.nodeID}` };
    console.log(
      inspect(
        await call(broker, `dispatcher.admin.${op}`, paramsOf(names, words), { meta, timeout: 130_000 }),
        {
          depth: 6,
        },
      ),
    );
  });
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What our REPL knows besides Moleculer's own commands. */
export const COMMANDS: ReplCustomCommand[] = [
  command("models", "List the models of the cluster", (broker) => {
    console.table(
      catalogOf(broker)
        .list()
        .map(describeModel)
        .map(({ name, question, model, state, replicas }) => ({
          name,
          question,
          model: `${model.name}@${model.version}`,
          state,
          replicas: replicas.join(", "),
        })),
    );
  }),

  command(
    "classify <file> [models...]",
    "Ask models (default: all) about a photo",
    async (broker, [file, ...models]) => {
      const inputs = [{ bytes: await readFile(file ?? ""), type: "" }];
      const params: AskParams = { kind: "image", inputs, ...(models.length > 0 ? { models } : {}) };
      const { items } = await call(broker, ASK, params);
      for (const item of items) {
        if ("error" in item) throw new Error(`${item.error.code}: ${item.error.message}`);
        console.table(
          Object.entries(item.results).map(([model, result]) => {
            if ("error" in result) return { model, answer: result.error.code };
            const { answer, probability, labels, node, timing } = result as Provenance & Classification;
            return {
              model,
              answer: answer ? "yes" : "no",
              probability: probability.toFixed(3),
              sees: labels[0]?.label,
              node,
              ms: (timing.queueMs + timing.computeMs).toFixed(1),
            };
          }),
        );
      }
    },
  ),

  command("versions <model>", "Show what is known of a model's versions", (broker, [name = ""]) => {
    const model = catalogOf(broker).get(name);
    if (!model) throw new Error(`There is no model "${name}"`);
    console.table(
      describeModel(model).versions.map(({ nodes, labels = [], fingerprint = "", ...version }) => ({
        ...version,
        fingerprint: fingerprint.slice(0, 8),
        labels: labels.join(", "),
        nodes: Object.entries(nodes)
          .map(([node, state]) => `${node}: ${state}`)
          .join(", "),
      })),
    );
  }),

  operation("load", "version-load <model> <version>", ["model", "version"]),
  operation("unload", "version-unload <model> <version>", ["model", "version"]),
  operation("refresh", "model-refresh <model>", ["model"]),
  operation("label", "version-label <model> <label> <version> [share...]", [
    "model",
    "label",
    "version",
    "share",
  ]),
  operation("rollback", "model-rollback <model> [version]", ["model", "version"]),
  operation("tune", "model-tune <model> [bounds...]", ["model"]),
  operation("drain", "node-drain <node>", ["node"]),

  command("dead-letters [limit]", "Show requests that no node survived", async (broker, [limit = "20"]) => {
    console.table(await listDeadLetters(amqpOf(broker), Number(limit)));
  }),

  command("purge-dead-letters", "Delete the dead letters", async (broker) => {
    console.log(`${await purgeDeadLetters(amqpOf(broker))} deleted`);
  }),
];

function amqpOf(broker: ServiceBroker): AmqpTransporter {
  const tx = broker.transit?.tx;
  if (tx instanceof AmqpTransporter) return tx;
  throw new Error("This process is not connected to RabbitMQ: set TRANSPORTER");
}
