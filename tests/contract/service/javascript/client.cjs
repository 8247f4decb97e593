// The calls that OpenAI documents, made with its client; what came of them goes to standard output as JSON.
// What a worker is to do with a job is said by its prompt.
const { OpenAI, toFile } = require("openai");
const fs = require("node:fs");

const [url, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 });
const image = () => toFile(fs.createReadStream(picture), "boat.png", { type: "image/png" });

const refusal = async (call) => {
  try {
    await call;
  } catch (error) {
    const { status, code, param, type } = error;
    return { name: error.constructor.name, status, code, param, type, message: error.message };
  }
  return null;
};

const collect = async (stream) => {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
};

const calls = {
  bytes: () => client.images.generate({ prompt: "boat", n: 2, size: "128x128", output_format: "webp" }),
  url: () => client.images.generate({ prompt: "boat", response_format: "url" }),
  extra: () => client.images.generate({ prompt: "extra", negative_prompt: "fog", seed: 7, num_inference_steps: 5, guidance_scale: 3.5, scheduler: "Euler a" }),
  stream: () => collect(client.images.generate({ prompt: "previews", stream: true, partial_images: 2, num_inference_steps: 9 })),
  failing_stream: () => refusal(collect(client.images.generate({ prompt: "fails", stream: true }))),
  edit: async () => client.images.edit({ image: await image(), prompt: "edit", strength: 0.5 }),
  variation: async () => client.images.createVariation({ image: await image(), n: 2 }),
  models: async () => (await client.models.list()).data,
  model: () => client.models.retrieve("paper"),
  unknown_model: () => refusal(client.models.retrieve("missing")),
  wrong_size: () => refusal(client.images.generate({ prompt: "boat", size: "100x128" })),
  not_repeated: () => refusal(client.images.generate({ prompt: "fails" }, { maxRetries: 2 })),
};

(async () => {
  const came = {};
  for (const [name, call] of Object.entries(calls)) came[name] = await call();
  console.log(JSON.stringify(came));
})();
