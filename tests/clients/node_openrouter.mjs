// npm @openrouter/sdk, unmodified: whole, streamed and with tools; its validation is strict.
import { OpenRouter } from "@openrouter/sdk";
import { readFileSync } from "node:fs";

const [serverURL, apiKey, modules] = process.argv.slice(2);
const client = new OpenRouter({ serverURL, apiKey, retryConfig: { strategy: "none" } });
const model = "acme/model";
const ask = (content, more) => client.chat.send({
  chatRequest: { model, messages: [{ role: "user", content }], ...more },
});
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

async function joined(stream) {
  const seen = { text: "", finish: null, usage: null, calls: [] };
  for await (const chunk of stream) {
    const choice = chunk.choices[0];
    seen.text += choice?.delta.content ?? "";
    seen.finish = choice?.finishReason ?? seen.finish;
    seen.usage = chunk.usage ?? seen.usage;
    for (const piece of choice?.delta.toolCalls ?? []) {
      const call = (seen.calls[piece.index] ??= ["", ""]);
      call[0] += piece.function?.name ?? "";
      call[1] += piece.function?.arguments ?? "";
    }
  }
  seen.calls = seen.calls.map(([name, text]) => [name, JSON.parse(text)]);
  return seen;
}

const whole = await ask("Say hello.", { stream: false });
const streamed = await joined(await ask("Say hello.", { stream: true }));
const called = await ask("Weather in Köln?", { tools, stream: false });
const calledStreamed = await joined(await ask("Weather in Köln?", { tools, stream: true }));
const models = await client.models.list();
console.log(JSON.stringify({
  version: JSON.parse(readFileSync(`${modules}/@openrouter/sdk/package.json`)).version,
  whole: whole.choices[0].message.content,
  streamed: streamed.text,
  finish: whole.choices[0].finishReason,
  finish_streamed: streamed.finish,
  usage: whole.usage.promptTokens,
  usage_streamed: streamed.usage.promptTokens,
  calls: called.choices[0].message.toolCalls.map((c) => [c.function.name, JSON.parse(c.function.arguments)]),
  calls_streamed: calledStreamed.calls,
  models: (models.result ?? models).data.map((entry) => entry.id),
}));
