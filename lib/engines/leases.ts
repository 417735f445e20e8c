import type { SettledItem, SubmitOptions } from "../batching/options.ts";
import { DrainingError } from "../errors.ts";
import type { Network } from "./network.ts";
import type { Tensors } from "./tensors.ts";

interface Shared {
  readonly network: Network;
  readonly loaded: Promise<void>;
  holders: number;
}

/** The networks of a node that are loaded, each once, however many services ask it. */
export class Leases {
  readonly #networks = new Map<string, Shared>();

  /**
   * Resolves when the network is loaded and warm.
   *
   * @param key equal for those who can share one: the fingerprint, and with it all settings that matter
   * @param make called if nobody holds it yet
   * @throws what its load failed with
   */
  async lease(key: string, make: () => Network): Promise<Lease> {
    let shared = this.#networks.get(key);
    if (!shared) {
      const network = make();
      shared = { network, loaded: network.load(), holders: 0 };
      this.#networks.set(key, shared);
    }
    shared.holders++;
    try {
      await shared.loaded;
    } catch (error) {
      await this.#release(key, shared);
      throw error;
    }
    return new Lease(shared.network, () => this.#release(key, shared));
  }

  async #release(key: string, shared: Shared): Promise<void> {
    if (--shared.holders > 0) return;
    if (this.#networks.get(key) === shared) this.#networks.delete(key);
    await shared.network.close();
  }
}

/** One holder's part in a network. */
export class Lease {
  readonly #network: Network;
  readonly #onRelease: () => Promise<void>;
  readonly #open = new Set<Promise<unknown>>();
  #released: Promise<void> | undefined;

  constructor(network: Network, onRelease: () => Promise<void>) {
    this.#network = network;
    this.#onRelease = onRelease;
  }

  get network(): Network {
    return this.#network;
  }

  /** See {@link Network.submit}. @throws DRAINING after `release()` */
  async submit(items: readonly Tensors[], options: SubmitOptions = {}): Promise<SettledItem<Tensors>[]> {
    if (this.#released) throw new DrainingError();
    const settled = this.#network.submit(items, options);
    this.#open.add(settled);
    try {
      return await settled;
    } finally {
      this.#open.delete(settled);
    }
  }

  /** Refuses new work and resolves when what this holder submitted is settled; the last one closes the network. */
  release(): Promise<void> {
    this.#released ??= Promise.allSettled(this.#open).then(() => this.#onRelease());
    return this.#released;
  }
}
