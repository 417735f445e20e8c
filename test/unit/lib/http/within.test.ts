import { within } from "../../../../lib/http/within.ts";

const never = new Promise<never>(() => {});

test("is what the work comes to", async () => {
  await expect(within(60_000, new AbortController().signal, async () => 7)).resolves.toBe(7);
  const failure = new Error("of the work");
  await expect(within(60_000, new AbortController().signal, () => Promise.reject(failure))).rejects.toBe(
    failure,
  );
});

test("fails at the deadline though nothing ever answers", async () => {
  await expect(within(1, new AbortController().signal, () => never)).rejects.toMatchObject({
    type: "DEADLINE_EXCEEDED",
  });
});

test("does not begin after the deadline", async () => {
  let begun = false;
  const work = async () => {
    begun = true;
  };
  await expect(within(0, new AbortController().signal, work)).rejects.toMatchObject({
    type: "DEADLINE_EXCEEDED",
  });
  expect(begun).toBe(false);
});

test("fails when the client goes away, or has gone before", async () => {
  const client = new AbortController();
  const waiting = within(60_000, client.signal, () => never);
  client.abort();
  await expect(waiting).rejects.toMatchObject({ type: "CANCELLED" });
  await expect(within(60_000, client.signal, () => never)).rejects.toMatchObject({ type: "CANCELLED" });
});
