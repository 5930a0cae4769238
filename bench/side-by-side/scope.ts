/** Things that end together, the last one first, whatever happens; each end is tried. */
export class Scope implements AsyncDisposable {
  readonly #members: AsyncDisposable[] = [];

  use<Member extends AsyncDisposable>(member: Member): Member {
    this.#members.push(member);
    return member;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    let failure: unknown = null;
    for (let member = this.#members.pop(); member !== undefined; member = this.#members.pop()) {
      try {
        await member[Symbol.asyncDispose]();
      } catch (error) {
        failure ??= error;
      }
    }
    if (failure !== null) throw failure as Error;
  }
}
