import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { HorizontalPodAutoscaler } from "kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler";
import type { IHorizontalPodAutoscalerBehavior } from "kubernetes-models/autoscaling/v2/HorizontalPodAutoscalerBehavior";
import type { IMetricSpec } from "kubernetes-models/autoscaling/v2/MetricSpec";
import type { ScalingPolicy } from "../../lib/deploy.ts";
import type { Needs } from "./needs.ts";

/** The customer's rule: one pod more above the high mark for the short time, one fewer below the low for the long. */
export const CPU_RULE = { highPercent: 80, upSeconds: 60, lowPercent: 20, downSeconds: 600 };

/** A recording rule of `k8s/scaling/rules.yaml`: the wanted number of pods, by Deployment and policy. */
export const WANTED_REPLICAS = "dl_lambda_wanted_replicas";

type Behavior = IHorizontalPodAutoscalerBehavior;

/**
 * HPA has one target. Its two tolerances (Kubernetes 1.35 and later; an older one ignores them and keeps 10 %) make
 * two marks of it: nothing happens between the target less its lower tolerance, 20 %, and the target, 80 %. What it
 * takes for a window is the most cautious of the recommendations in it.
 */
const BY_CPU: Behavior = {
  scaleUp: {
    tolerance: 0,
    stabilizationWindowSeconds: CPU_RULE.upSeconds,
    policies: [{ type: "Pods", value: 1, periodSeconds: CPU_RULE.upSeconds }],
  },
  scaleDown: {
    tolerance: 1 - CPU_RULE.lowPercent / CPU_RULE.highPercent,
    stabilizationWindowSeconds: CPU_RULE.downSeconds,
    policies: [{ type: "Pods", value: 1, periodSeconds: CPU_RULE.downSeconds }],
  },
};

/**
 * The recording rule decides and keeps its own windows: HPA only carries out, one step in a window all the same. The
 * rule learns of a step some scrapes after HPA took it, and until then may still want the old number: without a
 * window of its own HPA would take the new pod back at once, again and again.
 */
const BY_RULE: Behavior = {
  scaleUp: {
    tolerance: 0,
    stabilizationWindowSeconds: 0,
    policies: [{ type: "Pods", value: 1, periodSeconds: CPU_RULE.upSeconds }],
  },
  scaleDown: {
    tolerance: 0,
    stabilizationWindowSeconds: CPU_RULE.upSeconds,
    policies: [{ type: "Pods", value: 1, periodSeconds: CPU_RULE.downSeconds }],
  },
};

/** A queue grows in seconds: up at once, to twice as many; down only to what was enough for all of ten minutes. */
const BY_QUEUE: Behavior = {
  scaleUp: {
    tolerance: 0,
    stabilizationWindowSeconds: 0,
    selectPolicy: "Max",
    policies: [
      { type: "Percent", value: 100, periodSeconds: 30 },
      { type: "Pods", value: 2, periodSeconds: 30 },
    ],
  },
  scaleDown: {
    tolerance: 0,
    stabilizationWindowSeconds: CPU_RULE.downSeconds,
    policies: [{ type: "Pods", value: 1, periodSeconds: 60 }],
  },
};

const BEHAVIORS: Readonly<Record<ScalingPolicy, Behavior>> = { cpu: BY_CPU, rule: BY_RULE, queue: BY_QUEUE };

/** The autoscaler of a service's Deployment. */
export function autoscaler({ name, min, max, scaling }: Needs, metadata: object): HorizontalPodAutoscaler {
  return new HorizontalPodAutoscaler({
    metadata,
    spec: {
      scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name },
      minReplicas: min,
      maxReplicas: max,
      metrics: [scaling === "cpu" ? cpuOf(name) : wanted(name, scaling)],
      behavior: BEHAVIORS[scaling],
    },
  });
}

const NAMESPACE = "dl-lambda";

/** Where Prometheus is: that of a Prometheus Operator in the namespace `monitoring`, unless an overlay says otherwise. */
const PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090";

/**
 * The same by KEDA, which makes the autoscaler itself and brings it the number: by the exact rule, unless the service
 * asks for its queue. KEDA's kind knows no tolerances, so that from ten pods on a single step is within HPA's own 10 %.
 */
export function scaledObject({ name, min, max, scaling }: Needs, metadata: object): ScaledObject {
  const policy = scaling === "cpu" ? "rule" : scaling;
  const { scaleUp, scaleDown } = BEHAVIORS[policy];
  return new ScaledObject({
    metadata,
    spec: {
      scaleTargetRef: { name },
      minReplicaCount: min,
      maxReplicaCount: max,
      pollingInterval: 15,
      advanced: {
        horizontalPodAutoscalerConfig: {
          behavior: { scaleUp: withoutTolerance(scaleUp), scaleDown: withoutTolerance(scaleDown) },
        },
      },
      triggers: [
        {
          type: "prometheus",
          metricType: "AverageValue",
          metadata: {
            serverAddress: PROMETHEUS,
            query: `max(${WANTED_REPLICAS}{namespace="${NAMESPACE}",deployment="${name}",policy="${policy}"})`,
            threshold: "1",
            // Without data nothing is wanted, rather than none.
            ignoreNullValues: "false",
          },
        },
      ],
    },
  });
}

function withoutTolerance({ tolerance: _, ...rules }: NonNullable<Behavior["scaleUp"]> = {}) {
  return rules;
}

/** Of the service's own container: a sidecar's idle cores would hide that the service has none left. */
function cpuOf(container: string): IMetricSpec {
  return {
    type: "ContainerResource",
    containerResource: {
      name: "cpu",
      container,
      target: { type: "Utilization", averageUtilization: CPU_RULE.highPercent },
    },
  };
}

/** With an average of 1 per pod, as many pods are wanted as the value says. */
function wanted(deployment: string, policy: ScalingPolicy): IMetricSpec {
  return {
    type: "External",
    external: {
      metric: { name: WANTED_REPLICAS, selector: { matchLabels: { deployment, policy } } },
      target: { type: "AverageValue", averageValue: "1" },
    },
  };
}
