/** A mistake of whoever starts the process: told in one line that says what to do, and without a stack. */
export class StartError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "StartError";
    // Moleculer logs the stack.
    this.stack = message;
  }
}
