import { parse, stringify } from "yaml";
import { kedaManifest, manifests } from "./manifests.ts";
import type { Needs } from "./needs.ts";

const MADE = "# Made by `npm run k8s`: change what it is made from and run it again.";

/** Text by file name: one file of manifests a service, and the kustomization that lists them. */
export function serviceManifests(services: readonly Needs[], image: string): ReadonlyMap<string, string> {
  const texts = services.map((needs): [string, string] => [
    `${needs.name}.yaml`,
    [
      `${MADE}\n# From ${needs.file}\n`,
      ...manifests(needs, image).map((object) => yaml(object.toJSON())),
    ].join("---\n"),
  ]);
  const kustomization = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: texts.map(([name]) => name),
  };
  return new Map([...texts, ["kustomization.yaml", `${MADE}\n${yaml(kustomization)}`]]);
}

/** What KEDA makes autoscalers of, for all services. */
export function scaledObjects(services: readonly Needs[]): string {
  const objects = services.map((needs) => yaml(kedaManifest(needs).toJSON()));
  return [`${MADE}\n# From the services' own files\n`, ...objects].join("---\n");
}

/**
 * The rules of a Prometheus rule file as the Prometheus Operator takes them.
 *
 * @param file its path as it is told to people
 */
export function prometheusRule(name: string, file: string, rules: string): string {
  const rule = {
    apiVersion: "monitoring.coreos.com/v1",
    kind: "PrometheusRule",
    metadata: { name, labels: { "app.kubernetes.io/part-of": "dl-lambda" } },
    spec: parse(rules),
  };
  return `${MADE}\n# From ${file}\n---\n${yaml(rule)}`;
}

function yaml(value: unknown): string {
  return stringify(value, { aliasDuplicateObjects: false, lineWidth: 0 });
}
