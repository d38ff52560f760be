// A function of example.yaml.

export default async function labels(message) {
  console.log('a label for', message.text());
}
