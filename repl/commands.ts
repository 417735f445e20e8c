import { readFile } from "node:fs/promises";
import type { BrokerOptions, ServiceBroker } from "moleculer";
import { ASK, call } from "../lib/actions.ts";
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
