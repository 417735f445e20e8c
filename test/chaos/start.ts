import { run } from "../../bin/run.ts";
import { isMechanism, MECHANISMS, type Mechanism } from "./mechanisms.ts";

/** The server without the mechanism that `CHAOS_WITHOUT` names. */
const name = process.env["CHAOS_WITHOUT"] ?? "";
if (!isMechanism(name)) {
  throw new RangeError(`Expected one of ${Object.keys(MECHANISMS).join(", ")} but received "${name}"`);
}
const mechanism: Mechanism = MECHANISMS[name];
mechanism.before?.();
await run();
mechanism.after?.();
