/**
 * What one client address may hold of the connections, and of the bytes of bodies. Small enough to leave the others
 * some of both; large enough that those who share an address, or one that sends the largest form, are not refused.
 */
export const ADDRESS_SHARE = 3 / 4;
