import { CancelledError, DeadlineExceededError } from "../errors.ts";

/**
 * `work`, unless the time is over or the client gone first: then what comes of it is ignored.
 *
 * @param ms time left
 * @throws DeadlineExceededError, CancelledError
 */
export async function within<T>(ms: number, hungUp: AbortSignal, work: () => Promise<T>): Promise<T> {
  if (hungUp.aborted) throw new CancelledError();
  if (ms <= 0) throw new DeadlineExceededError("gateway");
  const { promise: over, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new DeadlineExceededError("gateway")), ms);
  const cancel = () => reject(new CancelledError());
  hungUp.addEventListener("abort", cancel, { once: true });
  try {
    return await Promise.race([work(), over]);
  } finally {
    clearTimeout(timer);
    hungUp.removeEventListener("abort", cancel);
  }
}
