import type { Context, ServiceBroker, ServiceSchema } from "moleculer";
import type { ControlParams } from "../lib/actions.ts";
import { problemsOf } from "../lib/check.ts";
import { ModelNotFoundError, ServingError } from "../lib/errors.ts";
import { type Control, control as decision } from "../lib/models/control.ts";
import { type ModelService, servicesOf } from "../lib/models/model-service.ts";
import type { VersionReport } from "../lib/types.ts";
import { drain } from "../middlewares/health.ts";
import { AmqpTransporter } from "../transporters/amqp.ts";

interface Self {
  readonly broker: ServiceBroker;
}

/**
 * What every process does for the host: Moleculer's own `$node`, whose actions run on the node they are sent to and no
 * other. What it hears of a model here comes from {@link Admin}, in a dispatcher.
 */
export function nodeService(): ServiceSchema {
  return {
    name: "$node",
    actions: {
      // It would tell anyone on the bus what the broker's options say, RabbitMQ's password included.
      options: false as never,
      control(this: Self, { params: { model, control } }: Context<ControlParams>): Control {
        // Whoever may speak on the bus may say this: a million engines are no decision.
        const problems = problemsOf(decision, control, "control");
        if (problems.length > 0) throw new ServingError("BAD_REQUEST", problems.join("; "));
        return hosted(this.broker, model).apply(control);
      },
      refresh(this: Self, { params }: Context<{ model: string }>): Promise<readonly VersionReport[]> {
        return hosted(this.broker, params.model).refresh();
      },
      async drain(this: Self): Promise<null> {
        await drain(this.broker);
        const tx = this.broker.transit?.tx;
        // What it holds is finished; nobody need wait for that.
        if (tx instanceof AmqpTransporter) void tx.drain();
        return null;
      },
    },
  };
}

function hosted(broker: ServiceBroker, name: string): ModelService {
  const service = servicesOf(broker).get(name);
  if (!service) throw new ModelNotFoundError(name);
  return service;
}
