// SPDX-License-Identifier: Apache-2.0
// Counts texts (a JSON string per line) with Hugging Face's Rust tokenizers, special tokens recognised and none added:
//   node chats.mjs tokenizer.json <texts >counts
import { createInterface } from "node:readline";
import { Tokenizer } from "@anush008/tokenizers";

const tokenizer = Tokenizer.fromFile(process.argv[2]);
for await (const line of createInterface({ input: process.stdin })) {
  const encoding = await tokenizer.encode(JSON.parse(line), null, { addSpecialTokens: false });
  console.log(encoding.getIds().length);
}
