/** The command that lists what others than root own or may write to, below some folders. */
export function ofOthers(...folders: string[]): string[] {
  return ["find", ...folders, "!", "-user", "root", "-o", "-perm", "/022", "!", "-type", "l"];
}
