import { setTimeout as delay } from "node:timers/promises";

/**
 * Waits until `check` neither throws nor answers false, trying every 20 ms.
 * @returns what it answered
 * @throws its last error, or one that says it was never true, after `timeoutMs`
 */
export async function eventually<T>(check: () => T | Promise<T>, timeoutMs = 10_000): Promise<T> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    try {
      const result = await check();
      if (result !== false) return result;
      throw new Error(`Not true within ${timeoutMs} ms: ${check.toString()}`);
    } catch (error) {
      if (performance.now() > end) throw error;
    }
    await delay(20);
  }
}
