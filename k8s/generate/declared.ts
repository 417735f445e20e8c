import { globSync } from "node:fs";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ServiceSchema } from "moleculer";
import type { Deploy } from "../../lib/deploy.ts";

/** What a service file says of itself that matters to a cluster. */
export interface Declared {
  /** Path as it is told to people. */
  readonly file: string;
  /** Name of the file without its suffix: what `SERVICES` selects. */
  readonly base: string;
  readonly name: unknown;
  /** Its own `deploy` over those of its mixins. */
  readonly deploy: Deploy;
  /** Threads that its own settings fix, if they do. A mixin's are computed from the machine it runs on. */
  readonly threads?: unknown;
}

type Schema = Partial<ServiceSchema> & {
  readonly deploy?: Deploy;
  readonly settings?: { readonly threads?: unknown };
};

const SUFFIX = ".service.ts";

/** Reads the schemas below a folder. Importing them starts nothing: no broker is made and no model is loaded. */
export async function readServices(folder: string): Promise<Declared[]> {
  const files = globSync(`**/*${SUFFIX}`, { cwd: folder }).sort();
  return Promise.all(
    files.map(async (path) => {
      const file = join(folder, path);
      const { default: schema } = (await import(pathToFileURL(file).href)) as { default: Schema };
      const threads = schema.settings?.threads;
      return {
        file: join(basename(folder), path),
        base: basename(path, SUFFIX),
        name: schema.name,
        deploy: mixedIn(schema),
        ...(threads === undefined ? {} : { threads }),
      };
    }),
  );
}

/** As Moleculer merges: a schema's own over its mixins', an earlier mixin's over a later one's. */
function mixedIn({ mixins = [], deploy = {} }: Schema): Deploy {
  const inherited = [mixins].flat().reduceRight<Deploy>((lower, mixin) => over(lower, mixedIn(mixin)), {});
  return over(inherited, deploy);
}

function over(lower: Deploy, higher: Deploy): Deploy {
  return {
    ...lower,
    ...higher,
    replicas: { ...lower.replicas, ...higher.replicas },
    env: { ...lower.env, ...higher.env },
  };
}
