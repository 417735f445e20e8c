import { StateMachine } from "../../../lib/state-machine.ts";

const door = () =>
  new StateMachine("the door", { open: ["closed"], closed: ["open", "locked"], locked: [] }, "open");

test("moves where the table says", () => {
  const machine = door();
  machine.move("closed");
  expect(machine.state).toBe("closed");
  expect(machine.canMove("locked")).toBe(true);
  machine.move("locked");
  expect(machine.is("open", "locked")).toBe(true);
});

test("an illegal move throws, says what could follow, and changes nothing", () => {
  const machine = door();
  expect(() => machine.move("locked")).toThrow(
    `Expected closed to follow "open" for the door but received "locked"`,
  );
  expect(machine.state).toBe("open");
});

test("nothing follows a last state", () => {
  const machine = door();
  machine.move("closed");
  machine.move("locked");
  expect(() => machine.move("open")).toThrow(`Expected nothing to follow "locked"`);
});
