// esbuild puts text files into the bundle as strings.
declare module "*.txt" {
  const text: string;
  export default text;
}

declare module "*.css" {}
