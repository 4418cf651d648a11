// npm openai, unmodified: chat and Responses, whole, streamed and with tools; prints JSON.
import OpenAI from "openai";
import { readFileSync } from "node:fs";

const [baseURL, apiKey, modules] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "acme/model";
const messages = [{ role: "user", content: "Say hello." }];
const weather = [{ role: "user", content: "Weather in Köln?" }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];

const whole = await client.chat.completions.create({ model, messages });
let streamed = "", finish = null, usage = null;
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  finish = chunk.choices[0]?.finish_reason ?? finish;
  usage = chunk.usage ?? usage;
}
const called = await client.chat.completions.create({ model, messages: weather, tools });
const runner = client.chat.completions.stream({ model, messages: weather, tools });
const calledStreamed = await runner.finalChatCompletion();
const response = await client.responses.create({ model, input: "Say hello." });
let responseText = "", completed = null;
for await (const event of await client.responses.create({ model, input: "Say hello.", stream: true })) {
  if (event.type === "response.output_text.delta") responseText += event.delta;
  if (event.type === "response.completed") completed = event.response;
}
const calls = (answer) =>
  answer.choices[0].message.tool_calls.map((c) => [c.function.name, JSON.parse(c.function.arguments)]);
console.log(JSON.stringify({
  version: JSON.parse(readFileSync(`${modules}/openai/package.json`)).version,
  whole: whole.choices[0].message.content,
  streamed,
  finish: whole.choices[0].finish_reason,
  finish_streamed: finish,
  usage: whole.usage.prompt_tokens,
  usage_streamed: usage.prompt_tokens,
  calls: calls(called),
  calls_streamed: calls(calledStreamed),
  response: response.output_text,
  response_streamed: responseText,
  response_usage: completed.usage.input_tokens,
}));
