import { existsSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ServiceBroker } from "moleculer";
import { nearest } from "../lib/check.ts";
import type { Env } from "../lib/env.ts";
import { checkedService } from "../lib/service-check.ts";
import { StartError } from "../lib/start-error.ts";
import { brokerOptions } from "../moleculer.config.ts";

const SUFFIX = ".service.ts";

/**
 * Service files by name: `services/resnet-cat.service.ts` is "resnet-cat".
 *
 * @throws StartError for a folder that there is not, and for two files of one name: which of them answers must not
 *   depend on the order of their folders
 */
export function serviceFiles(dirs: readonly string[]): Map<string, string> {
  const files = new Map<string, string>();
  for (const dir of dirs) {
    if (!existsSync(dir)) throw new StartError(`Expected SERVICES_DIRS to be folders but there is no ${dir}`);
    for (const entry of readdirSync(dir, { recursive: true, encoding: "utf8" }).sort()) {
      if (entry.endsWith(SUFFIX)) {
        const base = entry.slice(entry.lastIndexOf("/") + 1, -SUFFIX.length);
        const file = resolve(dir, entry);
        const known = files.get(base);
        if (known !== undefined && known !== file) {
          throw new StartError(`Two services are called "${base}": ${known} and ${file}`);
        }
        files.set(base, file);
      }
    }
  }
  return files;
}

/**
 * A broker with the services of this process, not yet started.
 *
 * @param names services to host. Default: those `SERVICES` names, or all
 * @throws StartError if one is named that there is not
 */
export async function createApp(env: Env, names?: readonly string[]): Promise<ServiceBroker> {
  const files = serviceFiles(env.SERVICES_DIRS);
  const hosted = names ?? (env.SERVICES.length > 0 ? env.SERVICES : [...files.keys()]);
  const unknown = hosted.filter((name) => !files.has(name));
  if (unknown.length > 0) {
    const known = [...files.keys()];
    const meant = unknown.map((name) => {
      const near = nearest(name, known);
      return near ? `${name} (did you mean "${near}"?)` : name;
    });
    throw new StartError(
      `Expected SERVICES to be among ${known.join(", ")} but received ${meant.join(", ")}`,
    );
  }
  const broker = new ServiceBroker(brokerOptions(env));
  for (const name of hosted) {
    const file = files.get(name) ?? "";
    createService(broker, file, name, await import(pathToFileURL(file).href));
  }
  return broker;
}

/** @throws StartError, with the file, for settings that are wrong or ask for what there is not */
function createService(
  broker: ServiceBroker,
  file: string,
  name: string,
  module: { default?: unknown },
): void {
  const schema = checkedService(file, name, module);
  try {
    broker.createService(schema);
  } catch (error) {
    throw error instanceof StartError
      ? new StartError(`${file} cannot be started:\n  ${error.message}`)
      : error;
  }
}
