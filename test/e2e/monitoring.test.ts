import { resolve } from "node:path";
import sharp from "sharp";
import { BOARDS } from "../../monitoring/boards.ts";
import { eventually } from "../../testkit/eventually.ts";
import { freePort } from "../../testkit/port.ts";
import { type Prometheus, startPrometheus } from "../../testkit/prometheus.ts";
import { type Rabbit, startRabbit } from "../../testkit/rabbitmq.ts";
import { startServer, type TestServer } from "../../testkit/server.ts";

const MONITORING = resolve(import.meta.dirname, "../../monitoring");
/** Processes, and what runs in them. */
const PROCESSES = ["gateway", "dispatcher", "resnet-cat", "resnet-dog"] as const;

/** What a healthy cluster without Kubernetes has no series of: queries with them are valid and empty. */
const QUIET = [
  /kube_|dl_lambda_wanted_replicas/,
  /_deaths_total/,
  /retry_attempts_total/,
  /transport_requests_total/,
  /outcome!?="(QUEUE_FULL|ok)"/,
  // A counter that no board has found a place for yet.
  /: \w+_total$/m,
];

/** Every query of every board, with the variables as a board without a choice has them. */
const QUERIES = BOARDS.flatMap(({ uid, panels }) =>
  panels.flatMap((panel) =>
    ("targets" in panel ? (panel.targets as { expr: string }[]) : []).map(({ expr }) => ({
      panel: `${uid}: ${panel.title}`,
      expr: expr.replaceAll("$__rate_interval", "1m").replaceAll(/\$(service|model|network)/g, ".*"),
    })),
  ),
);

describe("a real Prometheus on a running cluster", () => {
  let rabbit: Rabbit;
  let servers: TestServer[] = [];
  let prometheus: Prometheus;

  beforeAll(async () => {
    const metricsPort = await freePort();
    rabbit = await startRabbit({ metricsPort });
    const adminPorts = await Promise.all(PROCESSES.map(() => freePort()));
    servers = await Promise.all(
      PROCESSES.map((service, i) =>
        startServer({ TRANSPORTER: rabbit.url, SERVICES: service, ADMIN_PORT: String(adminPorts[i]) }),
      ),
    );
    prometheus = await startPrometheus({
      global: { scrape_interval: "1s", evaluation_interval: "1s" },
      rule_files: ["recording", "alerts"].map((name) => resolve(MONITORING, `rules/${name}.yaml`)),
      scrape_configs: [
        {
          job_name: "dl-lambda",
          static_configs: PROCESSES.map((service, i) => ({
            targets: [`127.0.0.1:${adminPorts[i]}`],
            labels: { service },
          })),
        },
        { job_name: "rabbitmq", static_configs: [{ targets: [`127.0.0.1:${metricsPort}`] }] },
      ],
    });
    // Traffic before and after a scrape: what begins with its first value has no rate yet.
    for (let seen = 0; seen < 2; seen++) {
      await eventually(async () => (await classify(seen)) === 200, 30_000);
      const before = await samplesOf("up");
      await eventually(async () => (await samplesOf("up")) >= before + 3, 30_000);
    }
  }, 180_000);

  afterAll(async () => {
    await prometheus?.stop();
    await Promise.all(servers.map((server) => server.stop()));
    await rabbit?.remove();
  }, 60_000);

  const samplesOf = async (metric: string) =>
    (await prometheus.query(`min(count_over_time(${metric}[1h]))`))[0]?.value ?? 0;

  /** A few images, each of its own. */
  async function classify(round: number): Promise<number> {
    const url = servers[0]?.url ?? "";
    let status = 0;
    for (let i = 0; i < 4; i++) {
      const image = await sharp({
        create: { width: 64, height: 64, channels: 3, background: { r: 50 * i, g: 100 * round, b: 9 } },
      })
        .png()
        .toBuffer();
      const response = await fetch(`${url}/api/classify?models=resnet-cat,resnet-dog`, {
        method: "POST",
        headers: { "content-type": "image/png" },
        body: new Uint8Array(image),
      });
      ({ status } = response);
    }
    return status;
  }

  test("every target is up, and every rule can be evaluated", async () => {
    expect(
      (await prometheus.query("up == 1")).map(({ metric }) => metric["service"] ?? metric["job"]).sort(),
    ).toEqual([...PROCESSES.toSorted(), "rabbitmq"].sort());
    const { groups } = await prometheus.api<{
      groups: { rules: { name: string; health: string; state?: string }[] }[];
    }>("rules");
    const rules = groups.flatMap((group) => group.rules);
    expect(rules.length).toBeGreaterThan(20);
    expect(rules.filter(({ health }) => health !== "ok")).toEqual([]);
    // Nothing is wrong here.
    expect(rules.filter(({ state }) => state === "firing")).toEqual([]);
  });

  test.each(QUERIES)("$panel", async ({ panel, expr }) => {
    const samples = await prometheus.query(expr);
    if (QUIET.some((pattern) => pattern.test(`${panel}\n${expr}`))) return;
    expect(samples.map(({ value }) => Number.isFinite(value))).toContain(true);
  });
});
