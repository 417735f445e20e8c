import type { ServiceBroker } from "moleculer";
import type { ModelDescription, ModelMetadata } from "../types.ts";

interface ListedService {
  name: string;
  nodeID: string;
  available: boolean;
  metadata?: Partial<ModelMetadata>;
}

/**
 * Every model the cluster knows, by name. Models are found by their metadata in Moleculer's registry; there is no
 * other list. A model whose replicas are all gone stays listed as unavailable for as long as the registry remembers
 * one of its nodes.
 */
export function listModels(broker: ServiceBroker): ModelDescription[] {
  const services = broker.registry.getServiceList({
    onlyAvailable: false,
    skipInternal: true,
  }) as ListedService[];
  const models = new Map<string, { metadata: ModelMetadata; replicas: string[] }>();
  for (const { name, nodeID, available, metadata } of services) {
    if (!isModel(metadata)) continue;
    const known = models.get(name);
    const newest =
      known && known.metadata.model.version >= metadata.model.version ? known.metadata : metadata;
    const replicas = [...(known?.replicas ?? []), ...(available ? [nodeID] : [])];
    models.set(name, { metadata: newest, replicas });
  }
  return [...models]
    .map(
      ([
        name,
        {
          metadata: { kind: _, ...metadata },
          replicas,
        },
      ]) => ({
        name,
        ...metadata,
        state: replicas.length > 0 ? ("ready" as const) : ("unavailable" as const),
        replicas: replicas.sort(),
      }),
    )
    .sort((a, b) => a.name.localeCompare(b.name));
}

function isModel(metadata: Partial<ModelMetadata> | undefined): metadata is ModelMetadata {
  return metadata?.kind === "model" && metadata.model !== undefined;
}
