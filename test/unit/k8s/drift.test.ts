import { spawnSync } from "node:child_process";
import { resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../../..");

test("k8s/base is what the service files make it, whatever the environment of the machine says", () => {
  const { status, stderr } = spawnSync(process.execPath, ["k8s/generate/main.ts", "--check"], {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, ENGINE_THREADS: "77", DRAIN_GRACE_MS: "1", MAX_BATCH_SIZE: "5", PORT: "none" },
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
});
