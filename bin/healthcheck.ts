/** For the image's HEALTHCHECK: ends with 0 if the process in this container is ready, else with 1 and what is missing. */
const port = process.env["ADMIN_PORT"];
try {
  const response = await fetch(`http://127.0.0.1:${port}/health/ready`);
  if (!response.ok) {
    console.error(await response.text());
    process.exitCode = 1;
  }
} catch (error) {
  console.error(`Port ${port} does not answer: ${(error as Error).message}`);
  process.exitCode = 1;
}
