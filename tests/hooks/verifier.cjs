// A hook that judges every signature with the JavaScript verifier of Standard Webhooks: 204, or 400 with its words.
const http = require("node:http");
const { Webhook } = require("standardwebhooks");

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    try {
      new Webhook(process.argv[2]).verify(Buffer.concat(chunks).toString("utf8"), request.headers);
      response.writeHead(204).end();
    } catch (error) {
      response.writeHead(400).end(String(error));
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
