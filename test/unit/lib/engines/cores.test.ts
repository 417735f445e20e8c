import { Cores } from "../../../../lib/engines/cores.ts";

describe("Cores", () => {
  test("gives as many places as there are, the first alone", () => {
    const cores = new Cores(2);
    const wake = () => {};
    expect([cores.take(wake)?.alone, cores.take(wake)?.alone, cores.take(wake)]).toEqual([
      true,
      false,
      undefined,
    ]);
  });

  test("wakes who has waited longest, and the next only if there is a place left", () => {
    const cores = new Cores(1);
    const woken: string[] = [];
    const place = cores.take(() => {});
    const a = () => {
      woken.push("a");
      cores.take(a);
    };
    const b = () => {
      woken.push("b");
      cores.take(b);
    };
    cores.take(b);
    cores.take(a);
    cores.take(b);
    place?.release();
    expect(woken).toEqual(["b"]);
  });

  test("who does not want the place any more leaves it to the next", () => {
    const cores = new Cores(1);
    const woken: string[] = [];
    const place = cores.take(() => {});
    cores.take(() => void woken.push("a"));
    cores.take(() => void woken.push("b"));
    place?.release();
    expect(woken).toEqual(["a", "b"]);
    expect(cores.take(() => {})?.alone).toBe(true);
  });

  test("models that never stop asking take turns", () => {
    const cores = new Cores(2);
    const turns: string[] = [];
    const running: { release(): void }[] = [];
    const model = (name: string) => {
      const ask = () => {
        const place = cores.take(ask);
        if (!place) return;
        turns.push(name);
        running.push({
          release() {
            place.release();
            ask();
          },
        });
      };
      ask();
      ask();
      return ask;
    };
    for (const name of ["a", "b", "c"]) model(name);
    for (let i = 0; i < 6; i++) running.shift()?.release();
    expect(turns.join("")).toBe("aabcabca");
  });
});
