import { lab } from "../lab/lab.ts";
import { buildProgram } from "../lab/program.ts";
import { machineDevices } from "./devices.ts";

/**
 * vitest's global set-up of the project `daemon`: fetches and bundles once, before any test file asks which versions there are.
 *
 * @returns what looks, after all tests, whether they left the machine as it was
 */
export default async function setUp(): Promise<() => void> {
  await buildProgram();
  await lab.fetch();
  const before = JSON.stringify(machineDevices());
  return () => {
    const after = JSON.stringify(machineDevices());
    if (after === before) return;
    // vitest prints what is thrown here, and ends with 0 all the same.
    process.exitCode = 1;
    throw new Error(`the tests changed the machine's devices: ${before} became ${after}`);
  };
}
