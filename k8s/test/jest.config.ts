import type { Config } from "jest";
import base from "../../jest.config.ts";

/** `npm run k8s:test`: on a real control plane, one file after the other. */
const config: Config = {
  ...base,
  rootDir: "../..",
  testMatch: ["<rootDir>/k8s/test/**/*.test.ts"],
  maxWorkers: 1,
};

export default config;
