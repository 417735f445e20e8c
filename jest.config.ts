import type { Config } from "jest";

/** Tests run as native ES modules (`--experimental-vm-modules`); swc only strips the types. */
const config: Config = {
  testEnvironment: "node",
  testMatch: ["<rootDir>/test/**/*.test.ts"],
  extensionsToTreatAsEsm: [".ts"],
  transform: {
    "\\.ts$": [
      "@swc/jest",
      { jsc: { parser: { syntax: "typescript" }, target: "es2024" }, module: { type: "es6" } },
    ],
  },
  collectCoverageFrom: ["{lib,mixins,services,middlewares,strategies,transporters,repl}/**/*.ts"],
  coverageReporters: ["text-summary", "text"],
  coverageProvider: "v8",
  testTimeout: 30_000,
  maxWorkers: 2,
  modulePathIgnorePatterns: ["<rootDir>/.tfjs-node"],
};

export default config;
