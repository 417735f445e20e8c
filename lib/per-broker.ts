import type { ServiceBroker } from "moleculer";

/**
 * What a broker has one of, for as long as it lives: made by whoever asks first, so that only their `more` counts.
 *
 *     export const healthOf = perBroker(() => new Health());
 */
export function perBroker<T, More extends unknown[]>(
  make: (broker: ServiceBroker, ...more: More) => T,
): (broker: ServiceBroker, ...more: More) => T {
  const made = new WeakMap<ServiceBroker, { readonly own: T }>();
  return (broker, ...more) => {
    let entry = made.get(broker);
    if (!entry) {
      entry = { own: make(broker, ...more) };
      made.set(broker, entry);
    }
    return entry.own;
  };
}
