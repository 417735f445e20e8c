import { isMismatch, isRefusal, retryDelay } from "../../../transporters/connection.ts";

test("retries begin quick, slow down to a second, and are spread by chance", () => {
  const longest = [0, 1, 2, 3, 4, 50].map((attempt) => retryDelay(attempt, () => 1));
  const shortest = [0, 1, 2, 3, 4, 50].map((attempt) => retryDelay(attempt, () => 0));
  expect(longest).toEqual([100, 200, 400, 800, 1000, 1000]);
  expect(shortest).toEqual(longest.map((ms) => ms / 2));
});

test.each([
  [
    'Handshake terminated by server: 403 (ACCESS-REFUSED) with message "ACCESS_REFUSED - Login was refused"',
    true,
  ],
  ["Expected ConnectionOpenOk; got <ConnectionClose … NOT_ALLOWED - access to vhost 'x' refused", true],
  ["connect ECONNREFUSED 127.0.0.1:5672", false],
  ["Socket closed abruptly during opening handshake", false],
  ["connect ECONNREFUSED 127.0.0.1:403", false],
])("%s is a refusal: %p", (message, refused) => {
  expect(isRefusal(new Error(message))).toBe(refused);
});

test("a queue with other arguments is told from other errors by its code", () => {
  expect(isMismatch(Object.assign(new Error("x"), { code: 406 }))).toBe(true);
  expect(isMismatch(Object.assign(new Error("x"), { code: 404 }))).toBe(false);
  expect(isMismatch(new Error("406"))).toBe(false);
  expect(isMismatch("406")).toBe(false);
});
