// npm @openrouter/ai-sdk-provider with ai, unmodified: whole, streamed and with tools.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateText, jsonSchema, streamText, tool } from "ai";
import { readFileSync } from "node:fs";

const [baseURL, apiKey, modules] = process.argv.slice(2);
const model = createOpenRouter({ baseURL, apiKey }).chat("acme/model");
const inputSchema = jsonSchema({ type: "object", properties: { city: { type: "string" } } });
const tools = { get_weather: tool({ description: "weather", inputSchema }) };

const whole = await generateText({ model, prompt: "Say hello.", maxRetries: 0 });
const stream = streamText({ model, prompt: "Say hello.", maxRetries: 0 });
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
const called = await generateText({ model, prompt: "Weather in Köln?", tools, maxRetries: 0 });
const calledStream = streamText({ model, prompt: "Weather in Köln?", tools, maxRetries: 0 });
await calledStream.consumeStream();
const calls = (list) => list.map((call) => [call.toolName, call.input]);
console.log(JSON.stringify({
  version: JSON.parse(readFileSync(`${modules}/@openrouter/ai-sdk-provider/package.json`)).version,
  whole: whole.text,
  streamed,
  finish: whole.finishReason,
  finish_streamed: await stream.finishReason,
  usage: whole.usage.inputTokens,
  usage_streamed: (await stream.usage).inputTokens,
  calls: calls(called.toolCalls),
  calls_streamed: calls(await calledStream.toolCalls),
}));
